"""Studies: what is asked. Each is a configuration, a run, its figures and a verdict, behind one command."""
