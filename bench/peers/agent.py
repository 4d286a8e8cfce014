#!/usr/bin/env python3
"""agentd, under a lanmanager that runs already. usage: agent.py FIGURE [--n N] ... (see common.py)
The programs are those of ../../bin (make build), or of $AGENT_BIN. In a figure of memory or
processor time the LAN manager does not count. sigkill also tells, on stderr, whether a line of
the talkers (CHILD=btalk) is missing in what agentctl logs prints."""
import json
import os
import socket
import subprocess
import sys
import time

import common

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ.get('AGENT_BIN', os.path.normpath(HERE + '/../../bin'))


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def write(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        json.dump(value, f)


class P(common.Peer):
    name = 'agent'
    lan = None

    def setup(self, n):
        port = free_port()
        lan, agent = self.dir + '/lan', self.dir + '/agent'
        write(lan + '/.allexlanmanager/needs', [
            dict(instancename=f'B-{i}', modulename=f'b:{i}', propertyhash={}) for i in self.idx])
        write(agent + '/allexmasterconfig.json', dict(
            lanmanageraddress='127.0.0.1', lanmanagerport=port, socket=agent + '/sock', name='bench',
            portrangesize=2000, portrangestart=dict(tcp=20000, http=22000, ws=24000)))
        write(agent + '/modules/b.json', dict(
            modulename='b:*', command=[*self.cmd, '${module}'], ports=['http'], backoff=dict(initial='0s')))
        with open(self.dir + '/lan.log', 'wb') as log:
            self.lan = subprocess.Popen([BIN + '/lanmanager', '--directory', lan, '--listen', f'127.0.0.1:{port}'],
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while socket.socket().connect_ex(('127.0.0.1', port)):
            if self.lan.poll() is not None:
                raise SystemExit(f'the LAN manager ended: {open(self.dir + "/lan.log").read()}')
            time.sleep(0.01)

    def start(self):
        self.popen([BIN + '/agentd', '--directory', self.dir + '/agent'])

    def ctl(self, *args):
        return subprocess.run([BIN + '/agentctl', *args], capture_output=True, text=True,
                              env=dict(os.environ, MACHINEAGENT_ADDRESS=f'unix:{self.dir}/agent/sock'))

    def graceful(self):
        if common.CHILD == 'btalk':
            self.count_lines()
        if self.roots():
            self.ctl('shutdown')

    def count_lines(self):
        """Tell how many lines are not where they belong."""
        lost = seen = 0
        for i in self.idx:
            lines = self.ctl('logs', '--from', '0', f'B-{i}').stdout.split('\n')[:-1]
            expected = 0
            for line in lines:
                _, k, _, _, child = line.split()
                if int(k) == 0:  # a replacement begins anew
                    expected = 0
                lost += int(k) != expected or int(child) != i
                expected = int(k) + 1
                seen += 1
            lost += not lines
        print(f'{self.name}: of {seen} lines of {self.n} talkers {lost} are missing or astray', file=sys.stderr)

    def extra_cleanup(self):
        if self.lan:
            self.lan.kill()
            self.lan.wait()


if __name__ == '__main__':
    common.main(P)
