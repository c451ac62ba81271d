"""The values, stages on disk, progress, parallel work, small tools for tables."""
