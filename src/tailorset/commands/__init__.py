"""Work of the commands of `tailorset`, except for serving and the registry."""
