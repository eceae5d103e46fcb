"""Stop when the monitor says so, with wrong labels that nobody knows: what it costs, beside what others do."""
