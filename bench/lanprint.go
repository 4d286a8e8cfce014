//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// printLAN prints what was measured, a column for each size.
func printLAN(results []lanResult) {
	line := func(figure string, value func(lanResult) string) {
		fmt.Printf("| %-62s |", figure)
		for _, r := range results {
			fmt.Printf(" %26s |", value(r))
		}
		fmt.Println()
	}
	line("LAN manager", func(r lanResult) string { return fmt.Sprintf("%d needs, %d agents", r.needs, r.agents) })
	line("--------------------------------------------------------------", func(lanResult) string { return "-------------------------:" })
	line("all agents connected, introduced, both tables read", func(r lanResult) string { return seconds(r.connected) })
	line("then all needs served, and known to all agents", func(r lanResult) string { return seconds(r.served) })
	line("processor time of the LAN manager for the first", func(r lanResult) string { return seconds(r.cpuRead) })
	line("processor time of the LAN manager for the second", func(r lanResult) string { return seconds(r.cpuServe) })
	line("items that the agents got, in all", func(r lanResult) string { return fmt.Sprintf("%d", r.items) })
	line("memory of the LAN manager, all served: Pss, RSS", func(r lanResult) string { return fmt.Sprintf("%.0f MiB, %.0f MiB", r.pss, r.rss) })
	line("the most RSS that it had until then", func(r lanResult) string { return fmt.Sprintf("%.0f MiB", r.peak) })
	line("memory of the agents' process: Pss, RSS", func(r lanResult) string { return fmt.Sprintf("%.0f MiB, %.0f MiB", r.crowdPSS, r.crowdRSS) })
	line("notifyServiceDown -> d in the others' services", func(r lanResult) string { return reach(r.downs) })
	line("addNeed -> c in the others' needs", func(r lanResult) string { return reach(r.adds) })
	line("every need served once, all tables as the LAN manager's", func(lanResult) string { return "yes" }) // else there is an error
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func reach(took []time.Duration) string {
	slices.Sort(took)
	at := func(percent int) float64 { return took[(len(took)-1)*percent/100].Seconds() * 1000 }
	return fmt.Sprintf("%.1f ms p50, %.1f ms p99", at(50), at(99))
}

// printGrowth says what a need more costs in a small and in a big LAN. What all
// agents cost without needs is taken off.
func printGrowth(none, small, big lanResult) {
	fmt.Printf("\ngrowth from %d to %d needs, per need, less what %d agents cost without needs:\n", small.needs, big.needs, big.agents)
	for _, f := range []struct {
		figure, unit string
		of           func(lanResult) float64
	}{
		{"time until all is served and known", "ms", func(r lanResult) float64 { return (r.connected + r.served).Seconds() * 1000 }},
		{"processor time of the LAN manager", "ms", func(r lanResult) float64 { return (r.cpuRead + r.cpuServe).Seconds() * 1000 }},
		{"its memory (Pss)", "KiB", func(r lanResult) float64 { return r.pss * 1024 }},
		{"its most memory (RSS)", "KiB", func(r lanResult) float64 { return r.peak * 1024 }},
	} {
		per := func(r lanResult) float64 { return (f.of(r) - f.of(none)) / float64(r.needs) }
		verdict := "no worse than linear"
		if per(big) > 1.1*per(small) { // measurements differ by so much
			verdict = "WORSE THAN LINEAR"
		}
		fmt.Printf("  %-36s %8.3f -> %8.3f %-3s  %s\n", f.figure, per(small), per(big), f.unit, verdict)
	}
}
