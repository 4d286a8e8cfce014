package lab

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Need is an entry of a LAN manager's file of needs.
type Need struct {
	ModuleName   string         `json:"modulename"`
	InstanceName string         `json:"instancename"`
	PropertyHash map[string]any `json:"propertyhash"`
	IPAddress    string         `json:"ipaddress,omitempty"`
	HTTPPort     int            `json:"httpport,omitempty"`
}

// LANManager is a running LAN manager.
type LANManager struct {
	*Program
	Address   string
	Directory string
	Page      string // host:port; empty unless Lab.Pages
}

// StartLANManager runs a LAN manager with those needs on a free port, or, if
// it was there before, with its files and on its old port; environment is added
// to ours. It listens when StartLANManager returns. One that does not get there
// comes with the error.
func (l *Lab) StartLANManager(name string, needs []Need, environment ...string) (*LANManager, error) {
	dir := filepath.Join(l.Dir, name)
	port := filepath.Join(dir, "port")
	address, err := os.ReadFile(port)
	if errors.Is(err, fs.ErrNotExist) {
		if address, err = l.prepareLANManager(dir, needs); err == nil {
			err = os.WriteFile(port, address, 0o644)
		}
	}
	if err != nil {
		return nil, err
	}
	page := ""
	args := []string{"--directory", dir, "--listen", string(address), "--log-level", "info"}
	if l.Pages {
		port, err := l.Ports(1)
		if err != nil {
			return nil, err
		}
		page = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		args = append(args, "--page", page)
	}
	p, err := l.start(name, dir, environment, "lanmanager", args...)
	if err != nil {
		return nil, err
	}
	m := &LANManager{Program: p, Address: string(address), Directory: dir, Page: page}
	return m, p.await("listening on "+m.Address, func() bool { return answers("tcp", m.Address) })
}

func (l *Lab) prepareLANManager(dir string, needs []Need) (address []byte, err error) {
	if needs == nil {
		needs = []Need{}
	}
	for n := range needs {
		if needs[n].PropertyHash == nil {
			needs[n].PropertyHash = map[string]any{}
		}
	}
	if err := WriteJSON(filepath.Join(dir, ".allexlanmanager", "needs"), needs); err != nil {
		return nil, err
	}
	port, err := l.Ports(1)
	return []byte(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))), err
}
