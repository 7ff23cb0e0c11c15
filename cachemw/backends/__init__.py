"""The stores. They know nothing of HTTP; `cachemw.backends.base` says what a store is and how to write one."""
