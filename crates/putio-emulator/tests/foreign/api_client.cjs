// Uses @putdotio/api-client: account, listing, creating, renaming, moving, deleting.

const assert = require('assert')
const dns = require('dns')

// The names of put.io lead to this machine, as entries in the file of hosts would have it.
const lookup = dns.lookup
dns.lookup = (name, options, callback) => {
  if (typeof options === 'function') {
    callback = options
    options = {}
  }
  if (!name.endsWith('.put.io')) return lookup(name, options, callback)
  if (options && options.all) return callback(null, [{ address: '127.0.0.1', family: 4 }])
  return callback(null, '127.0.0.1', 4)
}

const PutioAPI = require(process.env.EMULATOR_CLIENT).default

const run = async () => {
  const client = new PutioAPI({ baseURL: `${process.env.EMULATOR_URL}/v2` })
  client.setToken(process.env.EMULATOR_TOKEN)

  const { body: account } = await client.Account.Info()
  assert.strictEqual(account.info.username, 'user')
  assert.ok(account.info.disk.avail > 0)
  const { body: settings } = await client.Account.Settings()
  assert.strictEqual(settings.settings.trash_enabled, true)
  const { body: valid } = await client.Auth.ValidateToken(process.env.EMULATOR_TOKEN)
  assert.strictEqual(valid.result, true)

  const { body: created } = await client.Files.CreateFolder({ name: 'folder', parentId: 0 })
  for (const name of ['a', 'b', 'c']) {
    await client.Files.CreateFolder({ name, parentId: created.file.id })
  }
  await assert.rejects(
    client.Files.CreateFolder({ name: 'folder', parentId: 0 }),
    error => error.data.error_type === 'NAME_ALREADY_EXIST' && error.data.status_code === 400,
  )

  const { body: first } = await client.Files.Query(created.file.id, {
    perPage: 2,
    breadcrumbs: true,
    total: true,
  })
  assert.strictEqual(first.total, 3)
  assert.strictEqual(first.parent.name, 'folder')
  const { body: rest } = await client.Files.Continue(first.cursor, { perPage: 2 })
  assert.deepStrictEqual(
    [...first.files, ...rest.files].map(file => file.name),
    ['a', 'b', 'c'],
  )
  assert.strictEqual(rest.cursor, null)

  await client.File.Rename(created.file.id, 'renamed')
  await client.Files.Move([first.files[0].id], 0)
  const { body: root } = await client.Files.Query(0)
  assert.deepStrictEqual(
    root.files.map(file => file.name),
    ['a', 'renamed'],
  )

  const { body: deleted } = await client.Files.Delete([created.file.id, 99999])
  assert.strictEqual(deleted.skipped, 1)
  await client.Files.Delete([first.files[0].id], { skipTrash: true })
  const { body: trash } = await client.Trash.List()
  assert.deepStrictEqual(
    trash.files.map(file => file.name),
    ['renamed'],
  )
  const { body: empty } = await client.Files.Query(0)
  assert.deepStrictEqual(empty.files, [])
  console.log('done')
}

run().catch(error => {
  console.error(error)
  process.exit(1)
})
