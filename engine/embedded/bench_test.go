package embedded_test

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
)

// BenchmarkPublish is one acknowledged write of 256 bytes: by one publisher at
// a time, and by 16 at once, each on a connection of its own.
//
//	go test -run '^$' -bench Publish ./engine/embedded
func BenchmarkPublish(b *testing.B) {
	for _, mode := range []struct {
		name       string
		dir        bool
		durability engine.Durability
	}{{"memory", false, engine.Fast}, {"fast", true, engine.Fast}, {"always", true, engine.Always}} {
		for _, publishers := range []int{1, 16} {
			b.Run(mode.name+"/"+strconv.Itoa(publishers), func(b *testing.B) {
				cfg := embedded.Config{Durability: mode.durability}
				if mode.dir {
					cfg.Dir = b.TempDir()
				}
				s := start(b, cfg)
				js := make(chan jetstream.JetStream, publishers)
				for range publishers {
					e := connect(b, s)
					if len(js) == 0 {
						if _, err := e.JetStream().CreateStream(b.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: e.Storage(), MaxMsgs: 10_000}); err != nil {
							b.Fatal(err)
						}
					}
					js <- e.JetStream()
				}
				payload := make([]byte, 256)
				b.SetParallelism((publishers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
				b.ResetTimer()
				if publishers == 1 {
					j := <-js
					for b.Loop() {
						if _, err := j.Publish(b.Context(), "s", payload); err != nil {
							b.Fatal(err)
						}
					}
				} else {
					b.RunParallel(func(p *testing.PB) {
						j := <-js
						defer func() { js <- j }()
						for p.Next() {
							if _, err := j.Publish(b.Context(), "s", payload); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			})
		}
	}
}

// BenchmarkStart is start, connect, provision, close, stop, in a new
// directory; with it come what an idle engine takes.
func BenchmarkStart(b *testing.B) {
	for _, listen := range []string{"", "127.0.0.1:0"} {
		b.Run("listen="+listen, func(b *testing.B) {
			goroutines, resident := 0, 0
			for b.Loop() {
				before := runtime.NumGoroutine()
				s, err := embedded.Start(b.Context(), embedded.Config{Dir: b.TempDir(), Listen: listen})
				if err != nil {
					b.Fatal(err)
				}
				e, err := s.Connect(b.Context(), "bench")
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				goroutines, resident = runtime.NumGoroutine()-before, rss()
				e.Close()
				stop(b, s)
				b.StartTimer()
			}
			b.ReportMetric(float64(goroutines), "goroutines")
			b.ReportMetric(float64(resident), "MB-RSS")
		})
	}
}

// rss in MB; 0 where /proc doesn't tell.
func rss() int {
	text, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.Atoi(fields[0])
	return kb / 1024
}
