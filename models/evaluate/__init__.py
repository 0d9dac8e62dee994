"""How good it is: tables of detections against tables of truth."""
