"""What a federation trains, and the engines of plugins that play its rounds."""
