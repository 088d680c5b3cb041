"""How good an answer is, of any kind: right classes, agreement with the base network, or the user's own measure."""
