"""What vendors may see: of their own updates only, and nothing that tells of few devices or few tenants."""
