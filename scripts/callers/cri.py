#!/usr/bin/python3
"""A client of the Container Runtime Interface, as small as the checks need it; Debian has no crictl.

usage: cri.py METHOD [JSON]     calls METHOD of runtime.v1.RuntimeService with the request JSON, and prints the answer
"""
import json
import sys

import grpc

SOCKET = 'unix:///run/containerd/containerd.sock'

# Message: field=number:type, `*` repeated. Of the interface (k8s.io/cri-api, runtime/v1) the fields that checks use.
SCHEMA = '''
VersionRequest version=1:string
VersionResponse version=1:string runtime_name=2:string runtime_version=3:string
RunPodSandboxRequest config=1:PodSandboxConfig runtime_handler=2:string
RunPodSandboxResponse pod_sandbox_id=1:string
StopPodSandboxRequest pod_sandbox_id=1:string
RemovePodSandboxRequest pod_sandbox_id=1:string
PodSandboxStatusRequest pod_sandbox_id=1:string
PodSandboxStatusResponse status=1:PodSandboxStatus
PodSandboxStatus id=1:string state=3:int network=5:PodIP
PodIP ip=1:string
ListPodSandboxRequest
ListPodSandboxResponse items=1:*PodSandbox
PodSandbox id=1:string state=3:int
CreateContainerRequest pod_sandbox_id=1:string config=2:ContainerConfig sandbox_config=3:PodSandboxConfig
CreateContainerResponse container_id=1:string
StartContainerRequest container_id=1:string
StopContainerRequest container_id=1:string timeout=2:int
RemoveContainerRequest container_id=1:string
ListContainersRequest
ListContainersResponse containers=1:*Container
Container id=1:string pod_sandbox_id=2:string state=6:int
ContainerStatusRequest container_id=1:string
ContainerStatusResponse status=1:ContainerStatus
ContainerStatus id=1:string state=3:int exit_code=7:int reason=10:string message=11:string
ExecSyncRequest container_id=1:string cmd=2:*string timeout=3:int
ExecSyncResponse stdout=1:string stderr=2:string exit_code=3:int
ContainerStatsRequest container_id=1:string
ContainerStatsResponse stats=1:ContainerStats
ContainerStats cpu=2:Usage memory=3:Usage
Usage value=2:Value
Value value=1:int
UpdateContainerResourcesRequest container_id=1:string linux=2:Resources
Resources cpu_period=1:int cpu_quota=2:int cpu_shares=3:int memory_limit_in_bytes=4:int oom_score_adj=5:int cpuset_cpus=6:string
PodSandboxConfig metadata=1:PodMetadata hostname=2:string log_directory=3:string linux=8:LinuxPod
PodMetadata name=1:string uid=2:string namespace=3:string
LinuxPod cgroup_parent=1:string security_context=2:PodSecurity
PodSecurity namespace_options=1:Namespaces privileged=6:int
Namespaces network=1:int pid=2:int ipc=3:int userns_options=5:UserNamespace
UserNamespace mode=1:int uids=2:*IdMap gids=3:*IdMap
IdMap host_id=1:int container_id=2:int length=3:int
ContainerConfig metadata=1:Metadata image=2:Image command=3:*string args=4:*string working_dir=5:string envs=6:*Env \
 mounts=7:*Mount log_path=11:string stdin=12:int tty=14:int linux=15:LinuxContainer
Metadata name=1:string
Image image=1:string
Env key=1:string value=2:string
Mount container_path=1:string host_path=2:string readonly=3:int propagation=5:int recursive_read_only=8:int
LinuxContainer resources=1:Resources security_context=2:Security
Security capabilities=1:Capabilities privileged=2:int namespace_options=3:Namespaces run_as_user=5:Value readonly_rootfs=7:int \
 supplemental_groups=8:*int no_new_privs=11:int seccomp=15:Profile
Capabilities add_capabilities=1:*string drop_capabilities=2:*string
Profile profile_type=1:int localhost_ref=2:string
'''.replace('\\\n', '')


def read_schema():
    """{message: {field: (number, type, repeated)}}"""
    messages = {}
    for line in SCHEMA.strip().splitlines():
        name, *fields = line.split()
        messages[name] = {}
        for field in fields:
            key, _, rest = field.partition('=')
            number, _, kind = rest.partition(':')
            messages[name][key] = (int(number), kind.lstrip('*'), kind.startswith('*'))
    return messages


MESSAGES = read_schema()


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7f
        out.append(low | 0x80 if number else low)
        if not number:
            return bytes(out)


def encode(name, values):
    out = b''
    for key, value in values.items():
        number, kind, repeated = MESSAGES[name][key]
        for one in value if repeated else [value]:
            if kind == 'int':
                out += varint(number << 3) + varint(int(one))
                continue
            data = one.encode() if kind == 'string' else encode(kind, one)
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def read_varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        at, number, shift = at + 1, number | (byte & 0x7f) << shift, shift + 7
        if byte < 0x80:
            return number, at


def fields(data):
    """The numbers and raw values of a message."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = read_varint(data, at)
        else:
            length, at = read_varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value, at = data[at:at + length], at + length
        yield tag >> 3, value


def decode(name, data):
    known = {number: (key, kind, repeated) for key, (number, kind, repeated) in MESSAGES.get(name, {}).items()}
    out = {}
    for number, value in fields(data):
        if number not in known:
            continue
        key, kind, repeated = known[number]
        if kind == 'string':
            value = value.decode(errors='replace')
        elif kind != 'int':
            value = decode(kind, value)
        if repeated:
            out.setdefault(key, []).append(value)
        else:
            out[key] = value
    return out


def main():
    method, request = sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    call = grpc.insecure_channel(SOCKET).unary_unary(
        f'/runtime.v1.RuntimeService/{method}',
        request_serializer=lambda values: encode(f'{method}Request', values),
        response_deserializer=lambda data: decode(f'{method}Response', data))
    try:
        print(json.dumps(call(request, timeout=60)))
    except grpc.RpcError as error:
        sys.exit(f'{method}: {error.code().name}: {error.details()}')


main()
