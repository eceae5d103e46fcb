"""What the study of surrogates measures, and the runs that it measures it on."""
