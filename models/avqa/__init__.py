"""Audio-visual question answering: networks, and recovery methods in front of them."""
