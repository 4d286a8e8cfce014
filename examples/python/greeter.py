"""greeter is a child of an agent, in Python. docs/children.md goes through it,
and README.md beside it tells what it serves and how it is started."""

import concurrent.futures
import http.server
import json
import os
import signal
import threading
import urllib.request

import grpc
from machineagent.v1 import child_service_pb2, child_service_pb2_grpc
from machineagent.v1 import directory_service_pb2, directory_service_pb2_grpc
from machineagent.v1 import port_pb2, process_service_pb2, process_service_pb2_grpc

# What the agent says in our environment. In a developer's shell there is
# nothing, and the greeter serves a free port.
agent = os.environ.get("MACHINEAGENT_ADDRESS")
instance = os.environ.get("MACHINEAGENT_INSTANCE", "nobody")
port = int(os.environ.get("HTTP_PORT", 0))
spawn = json.loads(os.environ.get("ALLEX_SPAWN", "{}"))
properties = {"greeting": "hello", "friend": ""} | (spawn.get("propertyhash") or {})

# The API, from the stubs that protoc made.
channel = grpc.insecure_channel(agent or "unix:/nowhere", options=[
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
])
processes = process_service_pb2_grpc.ProcessServiceStub(channel)
directory = directory_service_pb2_grpc.DirectoryServiceStub(channel)

services = {}  # those of the LAN, by instance
down = threading.Event()  # we have said so
stopping = threading.Event()


def stay_registered():
    """Says that we are up, to whichever agent there is. A watch that ends is how
    we hear that the agent has gone."""
    while not stopping.is_set() and not down.is_set():
        try:
            processes.RegisterProcess(process_service_pb2.RegisterProcessRequest(
                instance=instance,
                ports=port_pb2.Ports(http=web.server_port),
                status_text="greets in Python",
            ), timeout=10)
            watch_services()
        except grpc.RpcError as error:
            if not stopping.is_set():
                print("the agent:", error.details(), flush=True)
        stopping.wait(0.2)


def watch_services():
    """Keeps the table of services until the watch ends."""
    global services
    table = {}
    for answer in directory.WatchServices(directory_service_pb2.WatchServicesRequest()):
        update = answer.WhichOneof("update")
        if update == "service":
            table[answer.service.instance] = answer.service
        elif update == "gone":
            table.pop(answer.gone, None)
        elif update == "initial_end":
            services = table  # until then the old one is better


def address(service):
    return f"{service.ip_address}:{service.ports.http}"


def greet():
    return f"{properties['greeting']} from {instance}, pid {os.getpid()}\n"


def list_services():
    return "".join(sorted(f"{s.instance} {address(s)}\n" for s in list(services.values())))


def ask_friend():
    friend = services.get(properties["friend"])
    if friend is None:
        raise LookupError(f'no service "{properties["friend"]}"')
    with urllib.request.urlopen(f"http://{address(friend)}/", timeout=10) as answer:
        return answer.read().decode()


def report_down():
    down.set()
    processes.ReportDown(process_service_pb2.ReportDownRequest(
        instance=instance, reason="somebody asked for it"), timeout=10)
    return "goodbye\n"


pages = {"/": greet, "/services": list_services, "/friend": ask_friend, "/down": report_down}


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = pages.get(self.path)
        try:
            status, text = (200, page()) if page else (404, "no such page\n")
        except (grpc.RpcError, LookupError, OSError) as error:
            status, text = 503, f"{error}\n"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format, *args):
        """Not every request is worth a line."""


class Child(child_service_pb2_grpc.ChildServiceServicer):
    """Our own socket, on which the agent asks us to end."""

    def Stop(self, request, context):
        stop(request.reason)
        return child_service_pb2.StopResponse()


def serve_own_socket():
    """Nobody but root and our own user may connect."""
    own = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=2))
    child_service_pb2_grpc.add_ChildServiceServicer_to_server(Child(), own)
    mask = os.umask(0o077)
    own.add_insecure_port(f"unix:/tmp/allexprocess.{os.getpid()}")
    own.start()
    os.umask(mask)
    return own


def stop(reason):
    if not stopping.is_set():
        print("ended:", reason, flush=True)
        stopping.set()


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: stop(signal.Signals(number).name))
own = serve_own_socket()
web = http.server.ThreadingHTTPServer(("", port), Page)
web.daemon_threads = False  # so that server_close waits for their answers
threading.Thread(target=web.serve_forever).start()
print(f"{instance} serves port {web.server_port}", flush=True)
if agent:
    threading.Thread(target=stay_registered, daemon=True).start()
stopping.wait()
web.shutdown()
web.server_close()
own.stop(grace=1).wait()
channel.close()
