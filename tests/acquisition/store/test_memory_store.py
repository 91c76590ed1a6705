from spheroidd.acquisition.store.memory_store import MemoryStackStore
from tests.contracts.store_contract import StoreContract


class TestMemoryStackStore(StoreContract):
    def new_store(self, tmp_path, emit):
        return MemoryStackStore(emit)
