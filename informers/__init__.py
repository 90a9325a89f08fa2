"""What the cluster says now, read-only. Nothing watches a cluster yet; the room keeps its place in the house."""
