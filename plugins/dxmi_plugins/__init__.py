"""The players that come with dxmi, found by entry point like anyone else's."""
