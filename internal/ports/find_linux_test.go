package ports

import (
	"net/netip"
	"testing"
)

const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// Written on a little-endian machine, as all are that this is tested on.
func TestInodes(t *testing.T) {
	t.Parallel()
	const table = header +
		"   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0\n" +
		"   1: 0200007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0\n" +
		"   2: 00000000:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0\n" +
		"   3: 0100007F:0BBA 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 14 1 0\n" +
		"   4: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 15 1 0\n"
	for addr, want := range map[string]string{
		"127.0.0.1:3000": "11", "127.0.0.2:3000": "12", "127.0.0.1:3001": "13", "[::1]:3000": "15",
	} {
		if got := inodes(table, netip.MustParseAddrPort(addr)); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, want %s", addr, got, want)
		}
	}
	if got := inodes(table, netip.MustParseAddrPort("127.0.0.1:3002")); got != nil {
		t.Errorf("a connection counts as a listener: %v", got)
	}
}

func FuzzInodes(f *testing.F) {
	f.Add(header + "0: 0100007F:0BB8 0:0 0A 0:0 0:0 0 0 0 11")
	f.Add("0: 7F:0BB8 0:0 0A 0:0 0:0 0 0 0 11")
	f.Fuzz(func(t *testing.T, table string) {
		_ = inodes(table, netip.MustParseAddrPort("127.0.0.1:3000"))
	})
}
