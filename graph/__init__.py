"""The API: names, types, nullability and descriptions, and the ASGI application that serves them.

Bodies are one to five lines; what a field does is said in `resolvers/`.
"""
