"""The administrator's commands: what they ask of the edge goes through its admin socket, and only there."""
