package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// explain finds out why a start failed. The kernel says only "no such file", be
// it the directory, the command or its interpreter that is missing, so that we
// look for ourselves afterwards.
func explain(s Spec, err error) *StartError {
	e := &StartError{Instance: s.Instance, Command: s.Argv[0], Err: err}
	e.Problem, e.Cure = directoryFault(s.Directory)
	if e.Problem == "" {
		e.Problem, e.Cure = commandFault(s.Argv[0], err)
	}
	if e.Problem == "" {
		e.Problem, e.Cure = systemFault(s, err)
	}
	return e
}

func directoryFault(dir string) (problem, cure string) {
	if dir == "" {
		return "", ""
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("its directory %s does not exist", dir), "make it, or correct the directory"
	case err != nil:
		return fmt.Sprintf("its directory %s can not be used: %v", dir, err), ""
	case !info.IsDir():
		return fmt.Sprintf("its directory %s is not a directory", dir), "correct the directory"
	case unix.Access(dir, unix.X_OK) != nil:
		return fmt.Sprintf("its directory %s may not be entered", dir), fmt.Sprintf("let user %d enter it", os.Geteuid())
	}
	return "", ""
}

func commandFault(path string, cause error) (problem, cure string) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file", "install it, or correct the command"
	case err != nil:
		return fmt.Sprintf("it can not be looked at: %v", err), ""
	case info.IsDir():
		return "it is a directory", "name the program in it"
	case !info.Mode().IsRegular():
		return "it is not a regular file", "correct the command"
	case info.Mode()&0o111 == 0:
		return "it is not executable", "chmod +x " + path
	case unix.Access(path, unix.X_OK) != nil:
		return fmt.Sprintf("user %d may not execute it", os.Geteuid()), "check its mode, and that its file system is not mounted noexec"
	case errors.Is(cause, unix.ENOENT), errors.Is(cause, unix.EACCES), errors.Is(cause, unix.ENOEXEC), errors.Is(cause, unix.ENOTDIR):
		return contentFault(path, cause)
	case errors.Is(cause, unix.ETXTBSY):
		return "somebody is writing to it", "try again when it is complete"
	}
	return "", ""
}

// contentFault looks at an executable file that the kernel did not execute.
func contentFault(path string, cause error) (problem, cure string) {
	file, err := os.Open(path)
	if err != nil {
		return "", "" // executable and not readable: nothing more to learn
	}
	defer file.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(file, head)
	head = head[:n]
	switch {
	case n == 0:
		return "it is empty", "install it again"
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := strings.Cut(string(head[2:]), "\n")
		interpreter, _, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
		return fmt.Sprintf("its interpreter %q can not be executed (%v)", interpreter, fileFault(interpreter, cause)),
			"install that, or correct the script's first line (a \\r there comes from Windows line ends)"
	case !bytes.HasPrefix(head, []byte("\x7fELF")):
		return "it is neither a program nor a script with an interpreter", "begin a script with a line like #!/bin/sh"
	case errors.Is(cause, unix.ENOENT):
		return "the loader of shared libraries that it names does not exist", "install the C library that it was built for, or build it statically"
	default:
		return fmt.Sprintf("it is no program of this machine (%v)", cause), "build it for this operating system and processor"
	}
}

// fileFault prefers what is wrong with the file itself to the kernel's cause.
func fileFault(path string, cause error) error {
	if _, err := os.Stat(path); err != nil {
		return errors.Unwrap(err)
	}
	return cause
}

func systemFault(s Spec, err error) (problem, cure string) {
	switch {
	case errors.Is(err, unix.E2BIG):
		return "its arguments and environment are too long", "shorten them; a large propertyhash may be the cause"
	case errors.Is(err, unix.EAGAIN):
		return "the limit of processes is reached", "raise TasksMax= of the agent's unit, or ulimit -u"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return LimitOfFiles, "raise LimitNOFILE= of the agent's unit, or ulimit -n"
	case errors.Is(err, unix.ENOMEM):
		return "there is no memory left for it", ""
	case s.Cgroup != "":
		return fmt.Sprintf("it can not be started in the cgroup %s: %v", s.Cgroup, err), "check that the agent may write there (systemd: Delegate=yes)"
	}
	return err.Error(), ""
}
