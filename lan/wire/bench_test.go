package wire

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"
)

// pair is the two ends of a connection over loopback.
func pair(b *testing.B, e envelope) (server, client Conn) {
	b.Helper()
	conns := make(chan Conn)
	done := make(chan struct{})
	url := e.listen(b, Limits{}, func(conn Conn) {
		if e.onlyJSON {
			if _, err := conn.Read(); err != nil { // the handshake
				b.Error(err)
			}
		}
		conns <- conn
		<-done
	})
	dialed := make(chan Conn, 1)
	go func() {
		conn, err := e.dial(b.Context(), url, DialOptions{})
		if err != nil {
			b.Error(err)
		}
		dialed <- conn
	}()
	server, client = <-conns, <-dialed
	b.Cleanup(func() {
		client.Close()
		close(done)
	})
	return server, client
}

// A LAN manager tells a peer of one change, which is read there; then of all
// there is.
func BenchmarkTravel(b *testing.B) {
	unit := []byte(`["n","12",["c",{"instancename":"Time","modulename":"allex_timeservice","propertyhash":{},"ipaddress":"127.0.0.1","tcpport":15000,"httpport":16000,"wsport":17000}]]`)
	for _, e := range envelopes {
		for name, units := range map[string][][]byte{
			"one unit":   {unit},
			"1000 units": repeat(unit, 1000),
			"a long one": {bytes.Repeat([]byte("1"), 60_000)},
		} {
			b.Run(fmt.Sprintf("%s/%s", e.name, name), func(b *testing.B) {
				server, client := pair(b, e)
				var reader sync.WaitGroup
				ready := make(chan struct{})
				reader.Go(func() {
					for range b.N {
						for n := 0; n < len(units); {
							got, err := client.Read()
							if err != nil {
								b.Error(err)
								return
							}
							n += len(got)
						}
						ready <- struct{}{}
					}
				})
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					if err := server.Write(units); err != nil {
						b.Fatal(err)
					}
					<-ready
				}
				reader.Wait()
			})
		}
	}
}

func repeat(unit []byte, n int) [][]byte {
	units := make([][]byte, n)
	for i := range units {
		units[i] = unit
	}
	return units
}

// Joining alone.
func BenchmarkJoin(b *testing.B) {
	unit := bytes.Repeat([]byte("x"), 200)
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			units := repeat(unit, n)
			var buf []byte
			b.ReportAllocs()
			for range b.N {
				buf, _ = join(buf, units, func(frame []byte) error { _, err := io.Discard.Write(frame); return err })
			}
		})
	}
}
