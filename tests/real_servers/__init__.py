"""What only real servers show: bytes that arrive while others are still in the making, clients that leave, crowds."""
