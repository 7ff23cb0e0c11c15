"""What `cachemw.observing` is made of: outcomes, counting, the middlewares for both interfaces, and exports."""
