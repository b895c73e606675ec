"""What a device's work takes in seconds where its profile has a fingerprint, and the search for a level by time."""
