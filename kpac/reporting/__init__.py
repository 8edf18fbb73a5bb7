"""What people read and look at: tables, charts, sheets and published numbers."""
