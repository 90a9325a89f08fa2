"""What each field of the API does: plain async functions `(ctx, *, …) -> row`, raising `core.errors`.

No GraphQL and no HTTP in here; what a caller sees is `graph/`'s business.
"""
