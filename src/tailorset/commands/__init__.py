"""What the commands of `tailorset` do, except for serving and the registry."""
