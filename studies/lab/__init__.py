"""What every study stands on: choices, the frame that runs them, claims, the command."""
