package lanmanager

import "context"

// follow takes changes of the files up, until the crew is dismissed.
func (m *Manager) follow(ctx context.Context) func() {
	watch(ctx, m.files, m.log, func() {
		contents, problems := m.files.load()
		m.crew.post(func() {
			m.lan.reload(contents, problems)
			m.lan.changed = true
		})
	})
	return nil
}
