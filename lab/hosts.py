#!/usr/bin/env python3
# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hosts: bare Debian machines in containers, with systemd and SSH, as the inventory names them.

    lab/hosts.py create     makes the hosts that are missing, leaves running ones alone, returns when SSH answers
    lab/hosts.py secrets    makes the cluster's secrets, once, beside the last inventory source
    lab/hosts.py destroy    removes hosts and secrets; with names only those hosts
    lab/hosts.py login      tells where the web UI is and how to log in there
    lab/hosts.py ssh HOST   logs in

Environment:
    LAB_INVENTORY   inventory sources, separated by commas (default: inventories/lab); each host in them that has an
                    `ansible_host` is made, a later source wins as in Ansible
    LAB_RELEASE     trixie (default) or bookworm
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import typing as t

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAB = ROOT / ".lab"
KEY = LAB / "id_ed25519"
PREFIX = "onprem-airflow-lab"
SUBNET = "10.213.77.0/24"
RELEASES = ("trixie", "bookworm")
CA_BUNDLE = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
EXTRA_CAS = pathlib.Path("/usr/local/share/ca-certificates")
BOOT_TIMEOUT = 90
INOTIFY = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
# Five or six of a host's systemd and its services.
INOTIFY_INSTANCES = 8
# Each secret of the lab has every character that is special in a URL, a shell, a configuration file or YAML.
NASTY = "@/%:#'$\\ "

# What a Debian server has after its installation and an administrator's first login, and nothing of ours.
# python3-apt comes with the standard utilities (through apt-listchanges); Ansible's apt module needs it in check mode.
PACKAGES = (
    "systemd systemd-sysv dbus libpam-systemd openssh-server sudo python3 python3-apt ca-certificates iproute2 procps"
    " less netbase"
).split()

# Runs once, inside the unpacked system ($1). SSH host keys are made at the first boot: no two hosts share one.
CUSTOMIZE = r"""
set -eu
chroot "$1" update-ca-certificates >/dev/null 2>&1
chroot "$1" useradd --create-home --shell /bin/bash sysadmin
echo 'sysadmin ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/sysadmin"
chmod 0440 "$1/etc/sudoers.d/sysadmin"
printf '%s\n' 'PermitRootLogin no' 'PasswordAuthentication no' > "$1/etc/ssh/sshd_config.d/lab.conf"
rm -f "$1"/etc/ssh/ssh_host_*
cat > "$1/etc/systemd/system/ssh-host-keys.service" <<'UNIT'
[Unit]
Description=Make this host's SSH keys
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=ssh.service
UNIT
chroot "$1" systemctl --quiet enable ssh-host-keys.service
rm -f "$1/etc/hostname" "$1/etc/resolv.conf"
: > "$1/etc/machine-id"
"""

OPTIONS = (
    # A host without translations and without fsync per file: quicker, and no role can tell.
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=force-unsafe-io",
    # An installed server has package lists; without them a dry run finds no package.
    "--skip=cleanup/apt/lists",
)

# Debian's updates and security suites, at the mirror that mmdebstrap chose: it knows them only for releases that
# are no newer than itself.
SOURCES = r"""
set -eu
list="$1/etc/apt/sources.list"
line=$(grep -m1 '^deb ' "$list")
suite=$(printf '%s\n' "$line" | awk '{ print $(NF - 1) }')
printf '%s\n' "$line" \
  "$(printf '%s\n' "$line" | sed "s/ $suite main\$/ $suite-updates main/")" \
  "$(printf '%s\n' "$line" | sed "s#/debian/\? $suite main\$#/debian-security $suite-security main#")" > "$list.new"
mv "$list.new" "$list"
"""


class LabError(Exception):
    """Something the person at the keyboard has to know."""


def say(text: str) -> None:
    print(f"lab: {text}", flush=True)


def run(command: list[str], *, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    # Never our own stdin: ssh makes that non-blocking, and Ansible beside it would refuse to run.
    given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(command, **given, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(command[:6])} … failed:\n{(done.stdout + done.stderr).strip()}")
    return done


def as_root(*command: str) -> list[str]:
    """Fixed addresses that the control machine reaches need Podman as root."""
    environment = ["env", f"CONTAINERS_CONF={ROOT / 'lab' / 'containers.conf'}"]
    return [*([] if os.geteuid() == 0 else ["sudo", "-n"]), *environment, *command]


def podman(*arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(as_root("podman", *arguments), stdin=stdin, check=check)


def sources() -> list[pathlib.Path]:
    return [ROOT / source for source in os.environ.get("LAB_INVENTORY", "inventories/lab").split(",")]


def secrets_file() -> pathlib.Path:
    """Beside the last source: the one that is only the lab's, so no other secrets are touched."""
    return sources()[-1] / "group_vars" / "all" / "airflow_secrets.yml"


def inventory_hosts() -> dict[str, str]:
    """The hosts with an address in the inventory sources."""

    def walk(groups: dict[str, t.Any] | None, found: dict[str, str]) -> None:
        for group in (groups or {}).values():
            for name, variables in ((group or {}).get("hosts") or {}).items():
                if "ansible_host" in (variables or {}):
                    found[name] = variables["ansible_host"]
            walk((group or {}).get("children"), found)

    found: dict[str, str] = {}
    for source in sources():
        walk(yaml.safe_load((source / "hosts.yml").read_text()), found)
    return found


def container(host: str) -> str:
    return f"{PREFIX}-{host}"


# -- image ---------------------------------------------------------------------------------------------------------


def image(release: str) -> str:
    """The name of the image of a release, built when this recipe has not been built yet."""
    cas = sorted(EXTRA_CAS.rglob("*.crt")) if EXTRA_CAS.is_dir() else []
    recipe = hashlib.sha256("\0".join([release, *PACKAGES, *OPTIONS, CUSTOMIZE, SOURCES]).encode())
    for path in cas:
        recipe.update(path.read_bytes())
    name = f"localhost/{PREFIX}:{release}-{recipe.hexdigest()[:12]}"
    if podman("image", "exists", name, check=False).returncode == 0:
        return name
    say(f"building the image of {release} from Debian's packages, once (about a minute)")
    with tempfile.TemporaryDirectory(prefix="lab-image-") as folder:
        pathlib.Path(folder).chmod(0o755)  # apt's own user reads in it
        hooks = {"sources": SOURCES, "customize": CUSTOMIZE}
        for hook, text in hooks.items():
            pathlib.Path(folder, hook).write_text("#!/bin/sh\n" + text)
            pathlib.Path(folder, hook).chmod(0o755)
        tar = f"{folder}/{release}.tar"
        target = "/usr/local/share/ca-certificates/"
        run(
            as_root(
                "mmdebstrap",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                *OPTIONS,
                f"--setup-hook={folder}/sources",
                *(f"--customize-hook=copy-in {path} {target}" for path in cas),
                f"--customize-hook={folder}/customize",
                release,
                tar,
            )
        )
        podman("import", tar, name)
    return name


# -- hosts ---------------------------------------------------------------------------------------------------------


def state(host: str) -> tuple[str, str, str]:
    """(status, release, checkout) of a host's container; empty when there is none."""
    label = '{{.State.Status}}\n{{index .Config.Labels "lab.release"}}\n{{index .Config.Labels "lab.checkout"}}'
    done = podman("container", "inspect", "--format", label, container(host), check=False)
    status, release, checkout = done.stdout.splitlines() if done.returncode == 0 else ("", "", "")
    return status, release, checkout


def forget(address: str) -> None:
    """Drops what SSH and Ansible remember of a host that is new or gone: its key and the open connection."""
    (LAB / "known_hosts" / address).unlink(missing_ok=True)
    socket = pathlib.Path.home() / ".ansible" / "cp" / f"lab-{address}"
    if socket.exists():
        run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", address], check=False)
        socket.unlink(missing_ok=True)


def start(host: str, address: str, release: str, name: str) -> bool:
    """One host, running. True when it is new."""
    status, current, checkout = state(host)
    if status and (current, checkout) != (release, str(ROOT)):
        raise LabError(
            f"{host} exists, with {current} and made by the checkout {checkout};"
            f" this is {ROOT} and wants {release}. `make lab-destroy` removes the lab"
        )
    if status == "running":
        return False
    forget(address)
    if status:
        podman("start", container(host))
    else:
        podman(
            *("run", "--detach", "--name", container(host), "--hostname", host),
            *("--label", f"lab.release={release}", "--label", f"lab.checkout={ROOT}"),
            *("--network", PREFIX, "--ip", address, "--network-alias", host, "--systemd=always"),
            # A host that is made anew keeps it, as a machine that is installed anew does. Others remember it, and would
            # for half a minute send to one that is gone.
            *("--mac-address", "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))),
            # Units with PrivateTmp=, ProtectSystem= and the like make mounts of their own.
            "--cap-add=SYS_ADMIN",
            "--cap-add=SYS_PTRACE",  # as root of a real host has it: preflight names the program that holds a port
            name,
            "/sbin/init",
        )
    authorize = "umask 077 && mkdir -p ~/.ssh && cat > ~/.ssh/authorized_keys"
    key = KEY.with_suffix(".pub").read_text()
    podman("exec", "-i", "--user", "sysadmin", container(host), "bash", "-c", f"cd && {authorize}", stdin=key)
    return not status


def wait(host: str) -> None:
    """Returns when systemd has finished booting, seen over SSH."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    answer = ""
    while time.monotonic() < deadline:
        done = run([*ssh(host), "systemctl", "is-system-running", "--wait"], check=False)
        answer = (done.stdout or done.stderr).strip()
        if answer == "running":
            return
        if answer == "degraded":
            failed = run([*ssh(host), "systemctl", "--failed", "--no-legend", "--plain"], check=False)
            raise LabError(f"{host} has booted, but these units failed:\n{failed.stdout.strip()}")
        time.sleep(0.2)
    raise LabError(f"{host} does not answer over SSH within {BOOT_TIMEOUT} s: {answer}")


def ssh(host: str) -> list[str]:
    return ["ssh", "-F", str(LAB / "ssh_config"), host]


def tell_login() -> None:
    hosts = inventory_hosts()
    master = hosts.get("master1") or next(iter(hosts.values()))
    say(f"the web UI is at http://{master}:8080; log in as admin with airflow_admin_password of")
    say(f"{secrets_file().relative_to(ROOT)}; log in to a host with: make lab-ssh HOST={next(iter(hosts))}")


def prepare_files(hosts: dict[str, str]) -> None:
    LAB.mkdir(mode=0o700, exist_ok=True)
    (LAB / "known_hosts").mkdir(exist_ok=True)
    if not KEY.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(KEY)])
    blocks = [f"Host {name}\n  HostName {address}\n" for name, address in hosts.items()]
    options = {
        "User": "sysadmin",
        "IdentityFile": str(KEY),
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "5",
        "LogLevel": "ERROR",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": str(LAB / "known_hosts" / "%h"),
    }
    blocks.append("Host *\n" + "".join(f'  {key} "{value}"\n' for key, value in options.items()))
    (LAB / "ssh_config").write_text("\n".join(blocks))


def each(hosts: t.Iterable[str], work: t.Callable[[str], t.Any]) -> list[t.Any]:
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(work, hosts))


def room(count: int) -> None:
    """Refuses more hosts than the kernel has room for: a systemd that gets no inotify instance ends as it boots."""
    wanted, allowed = count * INOTIFY_INSTANCES, int(INOTIFY.read_text())
    if wanted > allowed:
        raise LabError(
            f"{count} hosts need {wanted} inotify instances, and this machine allows {allowed}."
            f" Raise that until the next boot: sysctl fs.inotify.max_user_instances={wanted}"
        )


def create() -> None:
    began = time.monotonic()
    release = os.environ.get("LAB_RELEASE") or RELEASES[0]
    if release not in RELEASES:
        raise LabError(f"LAB_RELEASE is {release!r}; it is one of {', '.join(RELEASES)}")
    hosts = inventory_hosts()
    room(len(hosts))
    prepare_files(hosts)
    name = image(release)
    if podman("network", "exists", PREFIX, check=False).returncode != 0:
        podman("network", "create", "--subnet", SUBNET, PREFIX)
    new = [host for host, made in zip(hosts, each(hosts, lambda h: start(h, hosts[h], release, name))) if made]
    each(hosts, wait)
    log = LAB / "ansible.log"
    if new and log.exists():  # of earlier hosts, with earlier secrets; emptied, since Ansible may have it open
        log.write_text("")
    made = f"{len(new)} new" if new else "none new"
    say(f"{len(hosts)} hosts with {release} answer over SSH ({made}, {time.monotonic() - began:.1f} s)")


def make_secrets() -> None:
    if secrets_file().exists():
        return
    secrets_file().parent.mkdir(parents=True, exist_ok=True)
    inventory = [word for source in sources() for word in ("-i", str(source))]
    extra = json.dumps({"airflow_secrets_characters": NASTY, "airflow_secrets_file": str(secrets_file())})
    program = str(pathlib.Path(sys.executable).parent / "ansible-playbook")
    config = f"ANSIBLE_CONFIG={ROOT / 'ansible.cfg'}"
    run(["env", config, program, *inventory, "-e", extra, "onprem.airflow.secrets"])
    say(f"made secrets in {secrets_file().relative_to(ROOT)}")


def destroy(only: list[str]) -> None:
    hosts = {host: address for host, address in inventory_hosts().items() if not only or host in only}
    there = [host for host, found in zip(hosts, each(hosts, state)) if found[0]]
    # A container whose processes are slow to end makes podman give up now and then; what it has removed is gone.
    for attempt in range(3 if there else 0):
        done = podman(
            "rm", "--force", "--ignore", "--time", "0", "--volumes", *map(container, there), check=attempt == 2
        )
        if done.returncode == 0:
            break
        time.sleep(2)
    for address in hosts.values():
        forget(address)
    if not only:
        secrets_file().unlink(missing_ok=True)
    say(f"removed {', '.join(there) or 'nothing, there was no host'}")


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["create"]:
                create()
            case ["secrets"]:
                make_secrets()
            case ["destroy", *only]:
                destroy(only)
            case ["login"]:
                tell_login()
            case ["ssh", host, *command]:
                os.execvp("ssh", [*ssh(host), *command])
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (LabError, FileNotFoundError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
