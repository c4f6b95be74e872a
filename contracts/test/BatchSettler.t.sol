// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {vm, Vm} from "./Vm.sol";
import {Target} from "./Targets.sol";
import {BatchSettler} from "../src/BatchSettler.sol";
import {GasBurner} from "../src/local/GasBurner.sol";

contract BatchSettlerTest {
    // Named in README.md too. A change of the compiled code moves the contract.
    address private constant ADDRESS = 0xdDb810Be1B0aEE8fA25f1e605e195A4E041F7258;
    address private constant CREATE2_DEPLOYER = 0x4e59b44847b379578588920cA78FbF26c0B4956C;
    bytes private constant CREATE2_DEPLOYER_CODE =
        hex"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3";
    address private constant NOTHING = address(0xDEAD);
    uint256 private constant CAP = 65_000;
    // Nothing that a test does besides the calls themselves costs more.
    uint256 private constant OVERHEAD_MAX = 20_000;

    BatchSettler private settler;
    Target private target;
    address private burner;

    function setUp() public {
        vm.etch(CREATE2_DEPLOYER, CREATE2_DEPLOYER_CODE);
        (bool done, bytes memory answer) = CREATE2_DEPLOYER.call(bytes.concat(bytes32(0), type(BatchSettler).creationCode));
        require(done && answer.length == 20, "deploy");
        settler = BatchSettler(address(bytes20(answer)));
        target = new Target();
        burner = address(new GasBurner());
    }

    function test_its_address_follows_from_its_code() public view {
        bytes32 hash = keccak256(type(BatchSettler).creationCode);
        bytes32 place = keccak256(abi.encodePacked(hex"ff", CREATE2_DEPLOYER, bytes32(0), hash));
        require(address(settler) == address(uint160(uint256(place))), "CREATE2");
        require(address(settler) == ADDRESS, "ADDRESS");
        require(keccak256(address(settler).code) == keccak256(type(BatchSettler).runtimeCode), "code");
    }

    function test_all_are_paid_and_nothing_is_logged_but_by_the_target() public {
        string[3] memory expected = ["paid 0", "paid 1", "paid 2"];
        Vm.Log[] memory logs = settle(threeWith(pay(1)));
        require(logs.length == 3, "logs");
        for (uint256 i = 0; i < 3; ++i) expectLog(logs[i], expected[i]);
    }

    function test_logs_come_in_the_order_of_the_items() public {
        BatchSettler.Call[] memory calls = new BatchSettler.Call[](6);
        calls[0] = call(abi.encodeCall(Target.refuse, ()));
        calls[1] = pay(1);
        calls[2] = BatchSettler.Call(address(target), type(uint256).max, "");
        calls[3] = BatchSettler.Call(NOTHING, CAP, "");
        calls[4] = pay(4);
        calls[5] = BatchSettler.Call(burner, CAP, "");
        Vm.Log[] memory logs = settle(calls);
        string[6] memory expected = ["failed 0", "paid 1", "skipped 2", "failed 3", "paid 4", "failed 5"];
        require(logs.length == 6, "logs");
        for (uint256 i = 0; i < 6; ++i) expectLog(logs[i], expected[i]);
    }

    function test_one_that_reverts_spoils_nothing() public {
        expectOnlyTheMiddleToFail(call(abi.encodeCall(Target.refuse, ())), OVERHEAD_MAX);
    }

    function test_one_that_burns_its_gas_burns_its_cap_and_no_more() public {
        expectOnlyTheMiddleToFail(BatchSettler.Call(burner, CAP, "anything"), CAP + OVERHEAD_MAX);
        expectOnlyTheMiddleToFail(BatchSettler.Call(burner, 5_000_000, ""), 5_000_000 + OVERHEAD_MAX);
    }

    function test_one_that_reverts_with_a_flood_of_data_is_not_listened_to() public {
        // The target's own memory costs 95,000; copying it would cost as much again.
        BatchSettler.Call memory bomb = call(abi.encodeCall(Target.revertBomb, (200_000)));
        bomb.gasCap = 150_000;
        expectOnlyTheMiddleToFail(bomb, 95_000 + OVERHEAD_MAX);
    }

    function test_one_that_returns_a_flood_of_data_is_not_listened_to() public {
        BatchSettler.Call[] memory calls = threeWith(call(abi.encodeCall(Target.returnBomb, (200_000))));
        calls[1].gasCap = 150_000;
        (Vm.Log[] memory logs, uint256 gas) = settleMetered(calls);
        require(logs.length == 2, "logs");
        expectLog(logs[0], "paid 0");
        expectLog(logs[1], "paid 2");
        require(gas < 2 * CAP + 95_000 + OVERHEAD_MAX, "gas");
    }

    function test_a_target_without_code_has_failed() public {
        expectOnlyTheMiddleToFail(BatchSettler.Call(NOTHING, CAP, "anything"), OVERHEAD_MAX);
        // A precompiled contract has no code either.
        expectOnlyTheMiddleToFail(BatchSettler.Call(address(4), CAP, "anything"), OVERHEAD_MAX);
    }

    function test_an_account_with_a_delegation_has_code() public {
        address delegated = address(0xA11CE);
        vm.etch(delegated, abi.encodePacked(hex"ef0100", address(target)));
        BatchSettler.Call[] memory calls = new BatchSettler.Call[](1);
        calls[0] = pay(3);
        calls[0].target = delegated;
        Vm.Log[] memory logs = settle(calls);
        require(logs.length == 1 && logs[0].emitter == delegated, "logs");
    }

    function test_a_batch_inside_the_batch_spoils_nothing() public {
        BatchSettler.Call[] memory inner = new BatchSettler.Call[](2);
        inner[0] = pay(10);
        inner[1] = call(abi.encodeCall(Target.refuse, ()));
        bytes[2] memory ways = [abi.encodeCall(Target.reenter, (inner)), abi.encodeCall(BatchSettler.settle, (inner))];
        address[2] memory places = [address(target), address(settler)];
        for (uint256 way = 0; way < 2; ++way) {
            Vm.Log[] memory logs = settle(threeWith(BatchSettler.Call(places[way], 300_000, ways[way])));
            require(logs.length == 4, "logs");
            expectLog(logs[0], "paid 0");
            expectLog(logs[1], "paid 10");
            // The inner batch's word about its own item 1, under the settler's name: a log of the settler is no proof.
            expectLog(logs[2], "failed 1");
            expectLog(logs[3], "paid 2");
        }
    }

    function test_endless_recursion_ends_with_the_cap() public {
        BatchSettler.Call[] memory calls = threeWith(call(abi.encodeCall(Target.recurse, ())));
        calls[1].gasCap = 1_000_000;
        (Vm.Log[] memory logs, uint256 gas) = settleMetered(calls);
        expectLog(logs[0], "paid 0");
        expectLog(logs[logs.length - 1], "paid 2");
        require(gas < 1_000_000 + 2 * CAP + OVERHEAD_MAX, "gas");
    }

    function test_a_cap_that_no_gas_can_cover_is_skipped() public {
        uint256[3] memory caps = [type(uint256).max, type(uint256).max - 10_000, gasleft()];
        for (uint256 n = 0; n < caps.length; ++n) {
            BatchSettler.Call memory greedy = pay(1);
            greedy.gasCap = caps[n];
            Vm.Log[] memory logs = settle(threeWith(greedy));
            require(logs.length == 3, "logs");
            expectLog(logs[1], "skipped 1");
        }
    }

    function test_with_any_gas_all_items_have_an_outcome_or_none_ran() public {
        BatchSettler.Call[] memory calls = new BatchSettler.Call[](8);
        for (uint256 i = 0; i < calls.length; ++i) calls[i] = pay(i);
        calls[1] = call(abi.encodeCall(Target.refuse, ()));
        calls[2] = BatchSettler.Call(burner, CAP, "");
        calls[5] = BatchSettler.Call(NOTHING, CAP, "");
        calls[6] = BatchSettler.Call(burner, 3 * CAP, "");
        sweep(calls, 700_000, 997);
    }

    function test_with_any_gas_long_data_spoils_nothing() public {
        BatchSettler.Call[] memory calls = new BatchSettler.Call[](3);
        for (uint256 i = 0; i < calls.length; ++i) {
            calls[i] = pay(i);
            calls[i].data = bytes.concat(calls[i].data, new bytes(40_000 * (i + 1)));
        }
        sweep(calls, 500_000, 997);
    }

    function test_with_any_gas_a_large_cap_is_given_in_full() public {
        BatchSettler.Call[] memory calls = new BatchSettler.Call[](2);
        for (uint256 i = 0; i < calls.length; ++i) {
            calls[i] = BatchSettler.Call(address(target), 2_000_000, abi.encodeCall(Target.pay, (i, 2_000_000)));
        }
        sweep(calls, 2_500_000, 997);
    }

    function test_many_skipped_items_are_all_reported() public {
        BatchSettler.Call[] memory calls = new BatchSettler.Call[](100);
        for (uint256 i = 0; i < calls.length; ++i) calls[i] = BatchSettler.Call(burner, CAP, "");
        sweep(calls, 400_000, 997);
    }

    function test_the_documented_gas_limit_skips_nothing() public {
        uint256[4] memory sizes = [uint256(1), 2, 10, 100];
        for (uint256 n = 0; n < sizes.length; ++n) {
            BatchSettler.Call[] memory calls = new BatchSettler.Call[](sizes[n]);
            for (uint256 i = 0; i < calls.length; ++i) calls[i] = BatchSettler.Call(burner, CAP, new bytes(292));
            uint256 gas = 10_000 + CAP / 63 + calls.length * (CAP + 2_500);
            vm.cool(address(settler));
            vm.cool(burner);
            (bool done, Vm.Log[] memory logs) = settleWith(abi.encodeCall(BatchSettler.settle, (calls)), gas);
            require(done && logs.length == calls.length, "outcomes");
            for (uint256 i = 0; i < logs.length; ++i) {
                require(logs[i].topics[0] == BatchSettler.CallFailed.selector, "skipped");
            }
        }
    }

    function test_an_empty_list_does_nothing() public {
        require(settle(new BatchSettler.Call[](0)).length == 0, "logs");
    }

    function test_a_malformed_list_is_refused_as_a_whole() public {
        BatchSettler.Call[] memory calls = threeWith(pay(1));
        bytes memory data = abi.encodeCall(BatchSettler.settle, (calls));
        // The last item's data ends beyond the calldata.
        assembly {
            mstore(data, sub(mload(data), 32))
        }
        (bool done,) = address(settler).call(data);
        require(!done, "accepted");
        require(target.paid(0) == 0, "paid");
    }

    function test_ether_is_not_accepted() public {
        vm.deal(address(this), 1 ether);
        bytes memory empty = abi.encodeCall(BatchSettler.settle, (new BatchSettler.Call[](0)));
        bytes[3] memory ways = [bytes(""), empty, bytes(hex"12345678")];
        for (uint256 way = 0; way < ways.length; ++way) {
            (bool done,) = address(settler).call{value: 1}(ways[way]);
            require(!done, "accepted");
        }
        require(address(settler).balance == 0, "balance");
    }

    /// @dev With each amount of gas: it ends before the first call, or each item ran with all of its cap or has a log.
    function sweep(BatchSettler.Call[] memory calls, uint256 gasMax, uint256 step) private {
        bytes memory data = abi.encodeCall(BatchSettler.settle, (calls));
        uint256 nSettled;
        for (uint256 gas = 0; gas < gasMax; gas += step) {
            // State is put back, or a second payment would be cheaper than the first.
            uint256 before = vm.snapshotState();
            (bool done, Vm.Log[] memory logs) = settleWith(data, gas);
            if (done) {
                ++nSettled;
                expectOneOutcomeEach(calls, logs);
            } else {
                // With less gas every item was reported; with more, a call must have run and been undone.
                require(nSettled == 0, "a call was undone");
            }
            vm.revertToState(before);
        }
        require(nSettled > 0 && nSettled * step < gasMax, "the sweep saw only one side");
    }

    function expectOneOutcomeEach(BatchSettler.Call[] memory calls, Vm.Log[] memory logs) private view {
        require(logs.length == calls.length, "outcomes");
        for (uint256 i = 0; i < logs.length; ++i) {
            require(uint256(logs[i].topics[1]) == i, "order");
            bool honest = calls[i].target == address(target) && bytes4(calls[i].data) == Target.pay.selector;
            // Honest items are paid or skipped: they never run with less than their cap.
            if (honest) require(logs[i].topics[0] != BatchSettler.CallFailed.selector, "short of gas");
            else require(logs[i].emitter == address(settler), "a failure went unreported");
        }
    }

    function expectOnlyTheMiddleToFail(BatchSettler.Call memory middle, uint256 gasMax) private {
        (Vm.Log[] memory logs, uint256 gas) = settleMetered(threeWith(middle));
        require(logs.length == 3, "logs");
        expectLog(logs[0], "paid 0");
        expectLog(logs[1], "failed 1");
        expectLog(logs[2], "paid 2");
        require(gas < 2 * CAP + gasMax, "gas");
    }

    function expectLog(Vm.Log memory log, string memory expected) private view {
        bool own = log.emitter == address(settler);
        require(own || log.emitter == address(target), "emitter");
        require(log.topics.length == 2 && log.data.length == 0, "form of a log");
        string memory what = log.topics[0] == Target.Paid.selector && !own
            ? "paid "
            : log.topics[0] == BatchSettler.CallFailed.selector && own
                ? "failed "
                : log.topics[0] == BatchSettler.CallSkipped.selector && own ? "skipped " : "unknown ";
        string memory found = string.concat(what, vm.toString(uint256(log.topics[1])));
        require(keccak256(bytes(found)) == keccak256(bytes(expected)), string.concat(found, ", not ", expected));
    }

    function settle(BatchSettler.Call[] memory calls) private returns (Vm.Log[] memory logs) {
        (logs,) = settleMetered(calls);
    }

    function settleMetered(BatchSettler.Call[] memory calls) private returns (Vm.Log[] memory logs, uint256 gas) {
        vm.recordLogs();
        gas = gasleft();
        settler.settle(calls);
        gas -= gasleft();
        logs = vm.getRecordedLogs();
    }

    function settleWith(bytes memory data, uint256 gas) private returns (bool done, Vm.Log[] memory logs) {
        vm.recordLogs();
        (done,) = address(settler).call{gas: gas}(data);
        logs = vm.getRecordedLogs();
    }

    function threeWith(BatchSettler.Call memory middle) private view returns (BatchSettler.Call[] memory calls) {
        calls = new BatchSettler.Call[](3);
        (calls[0], calls[1], calls[2]) = (pay(0), middle, pay(2));
    }

    function pay(uint256 id) private view returns (BatchSettler.Call memory) {
        return call(abi.encodeCall(Target.pay, (id, CAP)));
    }

    function call(bytes memory data) private view returns (BatchSettler.Call memory) {
        return BatchSettler.Call(address(target), CAP, data);
    }
}
