"""An OTLP receiver on the official protobufs: prints each request as one line of JSON."""

import argparse
import gzip
import http.server
import json
import pathlib
import ssl
import threading
from concurrent import futures

import grpc
import trustme
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as service_grpc

parser = argparse.ArgumentParser()
parser.add_argument("--tls", type=pathlib.Path, help="write CA, client certificate and key here, and speak TLS")
parser.add_argument("--mutual", action="store_true", help="want to see a certificate of that CA")
parser.add_argument("--hang", action="store_true", help="take requests and never answer")
parser.add_argument("--reject", type=int, default=0, help="answer that so many points were refused")
parser.add_argument("--port", type=int, default=0, help="of HTTP")
options = parser.parse_args()
output = threading.Lock()
forever = threading.Event()


def say(what):
    with output:
        print(json.dumps(what), flush=True)


def receive(transport, path, headers, request):
    say({"transport": transport, "path": path, "headers": dict(headers), "request": MessageToDict(request)})
    if options.hang:
        forever.wait()
    response = service.ExportMetricsServiceResponse()
    if options.reject:
        response.partial_success.rejected_data_points = options.reject
        response.partial_success.error_message = "too old"
    return response


class Grpc(service_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        headers = ((key, value) for key, value in context.invocation_metadata() if isinstance(value, str))
        return receive("grpc", None, headers, request)


class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = ((key.lower(), value) for key, value in self.headers.items())
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        answer = receive("http", self.path, headers, service.ExportMetricsServiceRequest.FromString(body))
        answer = answer.SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


web = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Http)
rpc = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
service_grpc.add_MetricsServiceServicer_to_server(Grpc(), rpc)
if options.tls:
    ca = trustme.CA()
    server, client = ca.issue_cert("localhost"), ca.issue_cert("client")
    ca.cert_pem.write_to_path(options.tls / "ca.pem")
    client.cert_chain_pems[0].write_to_path(options.tls / "cert.pem")
    client.private_key_pem.write_to_path(options.tls / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.configure_cert(context)
    if options.mutual:
        ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    web.socket = context.wrap_socket(web.socket, server_side=True)
    pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
    trusted = ca.cert_pem.bytes() if options.mutual else None
    credentials = grpc.ssl_server_credentials([pair], trusted, options.mutual)
    grpc_port = rpc.add_secure_port("127.0.0.1:0", credentials)
else:
    grpc_port = rpc.add_insecure_port("127.0.0.1:0")
rpc.start()
say({"grpc_port": grpc_port, "http_port": web.server_address[1]})
web.serve_forever()
