"""Methods that choose weights, dampen them, or smooth the network."""
