"""Data that brings or draws itself: emoji by several artists, and shapes."""
