"""Files in object stores, on the hub and on web servers: named, read and published by URL."""
