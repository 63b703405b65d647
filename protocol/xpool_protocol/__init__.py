"""The contract between the parts: messages, codec, limits, errors, transports."""
