"""What belongs to whom, for the ways out: a client has its own folder, and all that it says goes on."""

from fedge.engine.isolation.room import Room


def room(node_config, run_config):
    return Room((), (node_config["home"],), node_config["home"], node_config)


def checked(message, payload, run_config, node_config):
    return payload
