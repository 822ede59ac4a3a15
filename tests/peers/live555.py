"""The RTSP proxy of live555: asks the camera at a URL once, and serves its pictures to everybody.

Usage: live555.py PORT URL. Listens on 127.0.0.1, prints its own URL, and ends with its standard input.
"""

import sys

import liblivemedia

port, url = int(sys.argv[1]), sys.argv[2]
server = liblivemedia.ProxyServer("127.0.0.1", port)
server.addURI(url, "relay", "", "")
server.start()
print(server.getProxyURI(url), flush=True)
sys.stdin.read()
