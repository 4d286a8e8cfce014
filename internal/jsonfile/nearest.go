package jsonfile

import "strings"

// Nearest is the name that was probably meant by key: the one with the fewest
// edits between them, if those are few. Capitals and separators do not count.
func Nearest(key string, names []string) string {
	best, fewest := "", 0
	if len(key) > 100 {
		return best // nobody mistypes a name at such length
	}
	for _, name := range names {
		n := edits(plain(key), name)
		if n <= max(1, (len(name)+1)/3) && (best == "" || n < fewest) {
			best, fewest = name, n
		}
	}
	return best
}

func plain(key string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(key))
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
