"""Early exits, confidence, coded hand-overs and bottlenecks: trained and measured (docs/exits.md)."""
