"""Lucency: from chest X-rays to a comparison of networks one may believe."""
