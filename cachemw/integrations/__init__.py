"""What single frameworks need beyond the middlewares and the decorators: a module for each, imported by its users."""
