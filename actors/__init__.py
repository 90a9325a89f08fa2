"""What takes longer than a request, and what keeps the queue honest. Everything here is safe to run twice."""
