package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
)

// children are what this test binary does instead of testing when
// KEELSON_TEST_CHILD names one.
var children = map[string]func() int{"write": writeChild, "hold": holdChild, "full": fullChild}

// writeChild writes keys as fast as it can and says which were acknowledged.
func writeChild() int {
	ctx := context.Background()
	durability := engine.Durability(os.Getenv("KEELSON_TEST_DURABILITY"))
	round := os.Getenv("KEELSON_TEST_ROUND")
	s, err := embedded.Start(ctx, embedded.Config{Dir: os.Getenv("KEELSON_TEST_DIR"), Durability: durability})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	e, err := s.Connect(ctx, "writer")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	kv, err := e.JetStream().KeyValue(ctx, engine.InstancesBucket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 0; ; i++ {
		key := "r" + round + "." + strconv.Itoa(i)
		if _, err := kv.PutString(ctx, key, strconv.Itoa(i)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(key) // one write(2), unbuffered: the parent gets what we told
	}
}

// fullChild writes until its disk takes no more, as far as it can tell: no file
// may grow beyond 2 MiB. It says what was acknowledged, then stops in order.
func fullChild() int {
	signal.Ignore(syscall.SIGXFSZ)
	ctx := context.Background()
	var log lockedBuffer
	s, err := embedded.Start(ctx, embedded.Config{Dir: os.Getenv("KEELSON_TEST_DIR"), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	e, err := s.Connect(ctx, "writer")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	kv, err := e.JetStream().KeyValue(ctx, engine.InstancesBucket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	limit := syscall.Rlimit{Cur: 2 << 20, Max: 2 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	padding := strings.Repeat("x", 1000)
	refused := 0
	for i := 0; i < 10_000 && refused < 3; i++ {
		short, cancel := context.WithTimeout(ctx, time.Second)
		_, err := kv.PutString(short, "full."+strconv.Itoa(i), strconv.Itoa(i)+padding)
		cancel()
		if err != nil {
			refused++ // by silence: the server gives no answer
			continue
		}
		fmt.Println("full." + strconv.Itoa(i))
	}
	e.Close()
	if err := s.Stop(ctx); err != nil || refused == 0 || !strings.Contains(log.String(), "file too large") {
		fmt.Fprintln(os.Stderr, "refused", refused, err, log.String())
		return 1
	}
	return 0
}

// holdChild holds the directory until its standard input ends, which is when
// the parent ends, at the latest.
func holdChild() int {
	s, err := embedded.Start(context.Background(), embedded.Config{Dir: os.Getenv("KEELSON_TEST_DIR")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("up")
	io.Copy(io.Discard, os.Stdin)
	if err := s.Stop(context.Background()); err != nil {
		return 1
	}
	return 0
}

func child(t *testing.T, name, dir string, env ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "KEELSON_TEST_CHILD="+name, "KEELSON_TEST_DIR="+dir)...)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // stays open until Wait
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// What was acknowledged is there after kill -9, round after round in the same
// directory. KEELSON_SOAK=1 makes it many rounds.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	rounds := 10
	if os.Getenv("KEELSON_SOAK") == "1" {
		rounds = 100
	}
	for _, durability := range []engine.Durability{engine.Fast, engine.Always} {
		t.Run(string(durability), func(t *testing.T) {
			t.Parallel()
			const seed = 20261122
			random := rand.New(rand.NewPCG(seed, 1))
			dir, acknowledged := t.TempDir(), map[string]string{}
			for round := range rounds {
				// By count of acknowledgements, so that slow machines get
				// as far; the first rounds hit the start and the creation.
				after := random.IntN(1 + min(200*round, 2000))
				cmd, lines := child(t, "write", dir, "KEELSON_TEST_DURABILITY="+string(durability), fmt.Sprint("KEELSON_TEST_ROUND=", round))
				if after == 0 {
					early := time.NewTimer(time.Duration(random.IntN(40)) * time.Millisecond)
					<-early.C
					cmd.Process.Kill()
				}
				for n := 1; lines.Scan(); n++ {
					_, value, _ := strings.Cut(lines.Text(), ".")
					acknowledged[lines.Text()] = value
					if n == after {
						cmd.Process.Kill()
					}
				}
				if err := cmd.Wait(); cmd.ProcessState.Exited() {
					t.Fatalf("round %d: the writer ended by itself: %v", round, err)
				}
				compare(t, round, dir, acknowledged)
			}
			t.Logf("%d rounds, %d acknowledged keys", rounds, len(acknowledged))
		})
	}
}

// A write the disk did not take is never acknowledged, and harms no other.
func TestFailedWriteIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	dir, acknowledged := t.TempDir(), map[string]string{}
	cmd, lines := child(t, "full", dir)
	for lines.Scan() {
		_, n, _ := strings.Cut(lines.Text(), ".")
		acknowledged[lines.Text()] = n + strings.Repeat("x", 1000)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(acknowledged) < 1000 {
		t.Errorf("only %d writes before the limit", len(acknowledged))
	}
	compare(t, 0, dir, acknowledged)
	compare(t, 1, dir, acknowledged)
}

func compare(t *testing.T, round int, dir string, acknowledged map[string]string) {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	defer stop(t, s)
	e, err := s.Connect(t.Context(), "reader")
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	defer e.Close()
	kv, err := e.JetStream().KeyValue(t.Context(), engine.InstancesBucket)
	if err != nil {
		t.Fatal(err)
	}
	w, err := kv.WatchAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	found := map[string]string{}
	for entry := range w.Updates() {
		if entry == nil {
			break
		}
		if entry.Operation() == jetstream.KeyValuePut {
			found[entry.Key()] = string(entry.Value())
		}
	}
	lost := 0
	for key, value := range acknowledged {
		if found[key] != value {
			lost++
		}
	}
	if lost > 0 {
		t.Fatalf("round %d: %d of %d acknowledged keys lost", round, lost, len(acknowledged))
	}
}
