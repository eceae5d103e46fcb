"""How weights fluctuate in flat and in steep directions, and which noise makes them do so."""
