"""How far a row can be believed: the rules over its own stack, over the rest of its plate, and the flags they give."""
