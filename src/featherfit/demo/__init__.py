"""Reviews in seven languages, and a run that trains on the English ones."""
