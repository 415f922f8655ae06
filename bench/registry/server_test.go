package registry

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// kindVariable makes this test binary a server of that kind.
const kindVariable = "KEELSON_BENCH_SERVER"

// server is a registry's server in a process of its own.
type server struct {
	url         string
	credentials string
	cmd         *exec.Cmd
	input       io.Closer
}

// serverOf starts this binary again, as the server. It prints where it is, and
// ends with its standard input.
func serverOf(kind string) func() (*server, error) {
	return func() (*server, error) {
		exe, err := os.Executable()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), kindVariable+"="+kind)
		cmd.Stderr = os.Stderr
		input, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		output, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		s := &server{cmd: cmd, input: input}
		line, err := bufio.NewReader(output).ReadString('\n')
		if err != nil {
			return nil, errors.Join(fmt.Errorf("the server of %s did not start: %w", kind, err), s.stop())
		}
		s.url, s.credentials, _ = strings.Cut(strings.TrimSpace(line), " ")
		return s, nil
	}
}

func (s *server) stop() error { return errors.Join(s.input.Close(), s.cmd.Wait()) }

// rss returns the server's resident memory in MB, after it had a moment to
// settle.
func (s *server) rss(b *testing.B) float64 {
	b.Helper()
	time.Sleep(time.Second)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// cpu returns the CPU time the server has used: utime and stime of proc(5), in
// ticks of 10 ms.
func (s *server) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(string(f))
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// serve is the server process.
func serve(kind string) error {
	dir, err := os.MkdirTemp("", "registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	switch kind {
	case "keelson":
		return serveKeelson(dir)
	case "etcd", "etcd-nofsync":
		return serveEtcd(dir, kind == "etcd-nofsync")
	}
	return fmt.Errorf("no server of the kind %q", kind)
}

// untilStdinEnds waits for the benchmark to close standard input.
func untilStdinEnds() { _, _ = io.Copy(io.Discard, os.Stdin) }
