"""A closed-loop load generator, for our server and any of the Open Inference Protocol.

    Target -> wire (http, grpc, mqtt) -> signature, first answer -> press, each level -> Load

Every client asks again as soon as it is answered; every answer is compared with the first.
"""
